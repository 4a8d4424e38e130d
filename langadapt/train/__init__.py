"""The loop, the optimiser, the schedule, checkpoints, the packing proof, the price."""
