"""Look-ups over the store and the API's records: functions that return plain JSON, each with its units and its gaps."""
