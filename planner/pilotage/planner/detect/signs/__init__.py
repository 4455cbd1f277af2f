"""Tables of signs: what structured sources say about a failure, a module for each source."""
