//! Process names: pid to comm, from saved_cmdlines and learnt from events.
