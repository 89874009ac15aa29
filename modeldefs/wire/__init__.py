"""What dispatcher and node say to each other. Stands alone: no framework, no database."""
