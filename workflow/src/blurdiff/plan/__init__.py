"""What a config will cost before anything starts: jobs, time, disk and memory, and how far a run is."""
