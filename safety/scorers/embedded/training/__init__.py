"""How the embedded scorer's weights come about; nothing here is needed to score."""
