"""The explorer: thin widgets over the functions of analysis and plots."""
