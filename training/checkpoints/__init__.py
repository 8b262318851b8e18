"""Network files: from the records of a file to our networks, and back."""
