"""One step of a plan: inputs are decoded, merged and encoded chunk by chunk."""
