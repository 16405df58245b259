"""Explorer: looks at runs in a browser. Reads the run store, never computes, starts without torch."""
