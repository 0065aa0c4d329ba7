"""snow-tiny: a small SAM3 tracker trained on procedural clips. Data, training and evaluation."""
