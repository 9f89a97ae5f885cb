"""The list of invalidations, and the pages where one is begun."""
