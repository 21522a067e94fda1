"""Settings: what may be set (`schema`), and how a YAML file becomes it (`load`)."""
