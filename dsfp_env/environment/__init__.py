"""The game: actions, observations, rewards to agents, episodes."""
