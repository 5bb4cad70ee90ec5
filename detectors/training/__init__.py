"""Training of detectors: data, augmentation, sampler, steps, loop."""
