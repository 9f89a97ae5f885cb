"""What providers say, each in its dialect: endings, errors, tokens and costs."""
