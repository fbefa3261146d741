-- Which namespaces wait for vectors of another model is asked often.

CREATE INDEX namespaces_model ON namespaces (model) WHERE memories > 0;
