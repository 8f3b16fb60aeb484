"""What losses are measured on: text, fixed splits, moments of activations."""
