"""What a finished run is to a person."""
