"""What takes several fits: information about the training set, and agreement."""
