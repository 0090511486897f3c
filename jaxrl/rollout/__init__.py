"""From problems to what an update learns from: sampled, verified, credited, packed."""
