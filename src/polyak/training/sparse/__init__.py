"""Parts of the recipe `sparse_soup`: selectors of weights, schedules of retraining, units, measures, the report."""
