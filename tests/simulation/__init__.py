"""The pure core with a simulated store, gateway and clock behind one seed: years of lives in seconds."""
