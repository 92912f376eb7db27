"""Copy is written here, from a brief, and held against what earlier copy earned before a customer sees it."""
