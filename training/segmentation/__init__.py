"""A network that finds the lungs: reads films and masks, trains it, measures it. Imports record and what it may."""
