"""What is measured and how it is kept: result records, upstream's result files, and the floors a method must beat."""
