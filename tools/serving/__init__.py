"""A server that answers with the champions among the versions of predictors; it needs the extra ``serve``."""
