"""From train.csv to a leaderboard place in a text competition whose answer is labels per row."""
