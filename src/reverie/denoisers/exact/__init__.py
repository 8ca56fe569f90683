"""Optimal guesses in closed form: the memoriser, the linear optimum, mixtures."""
