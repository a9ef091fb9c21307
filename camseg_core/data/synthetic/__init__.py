"""A synthetic drive: a seeded, procedural street in perspective with exact labels."""
