"""Words that both wings speak: errors, shapes, settings, seeds, images, the run store, progress."""
