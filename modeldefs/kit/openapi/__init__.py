"""What the OpenAPI document of the data endpoints says, made from what the front enforces."""
