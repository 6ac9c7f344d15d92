"""Scenes built from assets: a folder of photographs and meshes becomes layers of colour and inverse depth."""
