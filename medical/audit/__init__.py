"""The audit of a pneumonia model: groups, shortcuts, heat maps, a model card and two checklists, on one page."""
