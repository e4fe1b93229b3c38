"""Where customers come from: other systems that are read once, through their own API. Nothing is written there."""
