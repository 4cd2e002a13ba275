#![doc = "Object model."]
