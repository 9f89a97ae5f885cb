"""The page: three response models, some forty texts, and what the cache made of each question."""
