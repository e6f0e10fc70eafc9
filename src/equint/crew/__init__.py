"""Who does the work: this process, several, or those of a Ray cluster."""
