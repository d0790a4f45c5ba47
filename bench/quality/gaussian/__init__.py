"""What else can be made of a Gaussian negative: ADAR with one thing changed at a time."""
