"""Search: engines that propose candidates, the study that remembers, workers that run trials."""
