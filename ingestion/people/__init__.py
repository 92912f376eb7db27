"""Customers: who must not be sent anything, and who is deleted everywhere."""
