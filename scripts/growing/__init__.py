"""What a request may cost: fields of the OpenAPI document, shapes to fill them with, a meter."""
