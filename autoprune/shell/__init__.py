"""What every command of the command line has: its help, its examples, completion, and how much it says."""
