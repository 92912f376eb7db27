"""What people prefer: pairs, rankings and ratings, who can be believed, and what they say beside the money."""
