"""Image data sets: reading, checking, converting and feeding them."""
