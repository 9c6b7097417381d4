"""From a report's plain data to one HTML file that needs nothing else."""
