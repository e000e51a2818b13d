"""The formula language: expression trees over index variables, their values and their bounds."""
