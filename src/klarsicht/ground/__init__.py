"""Infrastructure of both wings: errors, array types, settings, seeds, images, the run store, training and progress."""
