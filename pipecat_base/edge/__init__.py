"""What one connection may cost the others: bounded heads, bodies, frames, time and turns of the event loop."""
