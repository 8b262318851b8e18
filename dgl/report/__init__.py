"""A page about a student: images beside its teacher's, costs, channels, scores, curves, lost modes."""
