"""What marketers chose among what they had: an apprentice that copies them, and the reward that their choices imply."""
