"""Tables, figures and the files that hold them."""
